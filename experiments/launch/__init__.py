"""Starting runs: queue, backends, worker, progress."""
