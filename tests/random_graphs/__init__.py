"""Whole random graphs: a generator, the properties that every folded one must have, and what shrinks a fault.

builder     a scope that grows node by node, with names, shapes and chance
constants   how a constant may be disguised
affines, absorbers, passers, layout, branches, rows, scopes
motifs: functions that put something behind a value
generate    a model from a seed
extremes    the same models with extreme constants
evaluate    float64 evaluation
properties  what has to hold
tally       counts: folds, refusals, rules used
campaign    many seeds
shrink      a small model with the same fault
crowded     small models full of affines that want the same operators
orders      every order in which the affines of a small model can be folded

To add an operator:

1. A motif: a function of a Builder `b` and the Tensor `x` that it goes behind, which returns what it makes, by
   `b.node(op_type, x, ...)`. Draw every attribute and form that the rule treats differently with `b.chance` and
   `b.pick`; constants come from `constants.constant`, so that they are disguised now and then. Where the operator
   cannot stand (another rank, an older opset), it raises `Unfit`, and another motif is drawn.
2. Its name in a list, as often as it is to be drawn: `absorbers.ABSORBERS` if it takes an affine into its weights,
   `passers.POINTWISE`, `POOLING` or `RESAMPLING` if it lets one pass, `layout.LAYOUT` if it moves elements,
   `branches.BRANCHES` if it has several data inputs, `passers.BLOCKERS` if it does neither.
3. A kernel in `operators.OPERATORS`, if ONNX's reference implementation lacks it, or is wrong or in float32 there.
4. `python benchmarks/random_graphs.py --count 5000` says under "rules used" how often each of its abilities was: one
   that was not even once is not tested. `--shrink SEED` makes a small model of a fault, which belongs in
   tests/cases/random_graphs.
"""
