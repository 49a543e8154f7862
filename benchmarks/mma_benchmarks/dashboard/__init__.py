"""What the page of a run costs it, and how old its pictures are."""
