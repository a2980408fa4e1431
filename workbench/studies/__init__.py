"""Studies, one folder a paper; `workbench.study.catalogue` says which there are."""
