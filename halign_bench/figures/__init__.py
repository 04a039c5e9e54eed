"""Figures for a paper, from the records of runs.

Each figure is made in two steps: `rows` takes what it needs from the table model, and `draw` makes a picture of these
rows and of nothing else. The rows are what is written as CSV beside the picture, so that anybody can draw it otherwise.

    style      widths, fonts, colours, saving        source     what the given folders hold
    quality, pareto, wins, training, timesteps, ablations, samples      one figure each, or a few that belong together
    make       all figures by name                   commands   `halign-bench figures`
"""
