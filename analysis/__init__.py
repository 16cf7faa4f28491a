"""What is read out of tracked runs: tables and pictures. Nothing here trains or writes to the tracking."""
