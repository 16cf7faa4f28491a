"""The sources of the datasets, one file per dataset."""
