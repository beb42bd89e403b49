"""fmm-study: runs a study of feature map multiplication. Importing this package imports nothing heavy."""
