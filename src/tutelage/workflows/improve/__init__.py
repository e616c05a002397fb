"""One turn of the loop, state by state, and the schedule that begins turns."""
