"""Pages of jobs that look at brains without decoding pictures."""
