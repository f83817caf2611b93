"""The role of a master: it finds workers, groups them, and brings engines up."""
