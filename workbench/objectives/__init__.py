"""Preference objectives, one named unit each; `catalogue` lists them with their knobs.

Notation, the same in every file (natural logarithms, sums over the answer's tokens):
a = log pi(y_w|x) - log pi_ref(y_w|x) and r, the same of the rejected answer; d = a - r;
m = log pi(y_w|x) - log pi(y_l|x) and c = log pi_ref(y_l|x) - log pi_ref(y_w|x), so d = m + c;
n_w and n_l count the tokens of the answers; eps is label smoothing.
Every loss is one number a pair, in the precision of the scores; a missing score (NaN) gives NaN,
and the reduction over the batch is the caller's.
"""
