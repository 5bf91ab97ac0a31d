"""What the tasks of one kind share, from the command line to the result; a task says what is its own."""
