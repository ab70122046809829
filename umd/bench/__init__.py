"""What training costs here, part by part: `make bench`, beside a plain reference that is timed in the same run."""
