"""Programs that the bench runs on hosts of the lab, with aemesh's own parts."""
