"""Amazon reviews and metadata in the layouts of 2014, 2018 and 2023."""
