"""Work on what comes from outside, in processes with limits on time, memory and output."""
