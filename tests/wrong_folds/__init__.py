"""Folds that are wrong, which a verification has to find: correct ones, broken in the ways a folder can be wrong.

faults    in the weights of one operator
misfolds  folds that should not have been made, or not like this
"""
