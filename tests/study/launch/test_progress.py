"""What the user sees while a study trains, with a clock that the test turns."""
