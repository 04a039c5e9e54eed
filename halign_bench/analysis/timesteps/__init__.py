"""At which noise levels is motion settled, and at which fidelity? The analysis behind TPO's `t_mid`, on any backbone.

AlignHuman (arXiv 2506.11144) splits training and sampling at one noise level t_mid: motion is set at high noise,
fidelity later, even where the early steps are skipped [paper]. How its authors measured that is not public; these
three measurements are ours. All of them are of the base alone, scored by the track's annotator, on clips of the
split `prompts`: t_mid is a number of a method, and one that is chosen on evaluation clips or by the evaluators would
be tuned on the test. K candidates are sampled for each clip, from the noise that preferences are sampled from.

decided   What of a criterion does x_t fix? Each finished candidate is noised to level t with fresh noise and sampled
          again from there (the forward-backward experiment of arXiv 2402.16991): the remake knows of it only what
          noise of that level leaves over. `decided` is the correlation of the scores of candidates and remakes within
          prompts (as deviations from the prompt's mean), 0 at t = 1 and 1 at t = 0 by definition. Scores within a
          prompt are what preference pairs are made of: where it is low, a preference is still open below t. A
          correlation has no unit, so criteria can be compared; distances could not be, since an absolute and a
          squared one rise differently on the same videos. And remakes are finished, from states that the network
          knows: neither blur nor a path it never took is scored.
estimate  The quality of the clean estimate at level t of the sampling path, less that of the finished sample.
          `settled` is the same as the share of the way from the first estimate (t = 1) to the finished sample, given
          where the two are told apart. An estimate at high noise is a blurred mean, which a criterion that measures
          distances may prefer to any sample: read it as a picture of the path, not as what is decided.
skipped   What does skipping the early interval cost? One step at t = 1 leads straight to t, and from
          there the steps are those of the whole path, so that only the interval and its evaluations are missing.
          Quality less that of the whole path from the same noise. It is what TPO samples with `motion_nfe_share` 0;
          at t = 0 it is generation in one step.

`estimate` and `skipped` are in standard deviations of the criterion's scores over all finished candidates, negative
is worse. Intervals are 95 % bootstrap intervals over identities, the same resamples for everything.

t_mid is recommended where `decided` of motion exceeds that of fidelity by the most: with J = decided motion +
(1 - decided fidelity), motion is mostly decided above it and fidelity mostly open below it (Youden's index, 1950,
with noise levels for thresholds). It is recommended only where that difference is above 0 with p < 0.05 after Holm's
correction over the levels; its interval is that of the maximum's place over the resamples. Otherwise the answer is
that the data do not tell, or that fidelity is decided first and the paper's order does not hold for this model.
"""
