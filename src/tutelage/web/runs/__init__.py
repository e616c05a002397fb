"""Parts of the pages about runs, plans and what is trained on."""
