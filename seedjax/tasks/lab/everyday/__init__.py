"""Everyday code for training: functions, classes, scripts and tests as people type
them, composed from concepts, names and phrases that are kept as data files.

    concepts/*.txt  what programs do, each in several ways, with checks
    names.txt       names of parameters and variables, by what they stand for
    nouns.txt       what a sentence calls a parameter, when it does not name it
    arguments.txt   what a docstring says of a parameter
    phrases.txt     how prompts, instructions and docstrings are worded
"""
