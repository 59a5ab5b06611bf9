"""What a notebook shows: answers, and progress while they are found."""
