"""Parts of the pages about dataset versions."""
