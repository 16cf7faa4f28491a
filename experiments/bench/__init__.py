"""The cost of training on this machine: steps, memory, a whole run, and the released code for comparison."""
