"""Trust on disk and at the desk: lines, requests, tokens, and who decides by them."""
