"""Whole random graphs: a generator, the properties that every folded one must have, and what shrinks a fault.

builder     a scope that grows node by node, with names, shapes and chance
constants   how a constant may be disguised
affines, absorbers, passers, layout, branches, scopes
motifs: functions that put something behind a value
generate    a model from a seed
extremes    the same models with extreme constants
evaluate    float64 evaluation
properties  what has to hold
tally       counts: folds, refusals, rules used
campaign    many seeds
shrink      a small model with the same fault
"""
