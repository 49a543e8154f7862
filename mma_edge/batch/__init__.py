"""`mma-edge batch`: the emotions of thousands of files, by every core, in a folder that can be gone on with.

corpus    which files there are: of folders, lists, and single ones
folder    what is in the output folder, and what is written to it
plan      what of the corpus is done, was moved, is a duplicate, or has to be done
files     one file: its records, with a model that is loaded once; calls of several files in one
worker    a process that does this
pool      many of them; what was in one that died is tried once more
cluster   actors of a Ray cluster in place of processes
run       from the corpus to the records
"""
