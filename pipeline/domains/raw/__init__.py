"""Raw text files as columns of strings: lines, fields, and a record of every row that cannot be used.

Nothing here knows a domain. Files are read in bounded blocks, so that the largest ones fit in memory.
"""
