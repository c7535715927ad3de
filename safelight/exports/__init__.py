"""What results are called outside the store, and how they get there: folders, zips, links."""
