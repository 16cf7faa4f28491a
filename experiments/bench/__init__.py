"""What training costs on this machine: our steps beside each other, and beside those of others."""
