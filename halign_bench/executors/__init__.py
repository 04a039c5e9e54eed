"""Where the tasks of a run or of a scoring are worked on. What a task is, and how it is done, is theirs alone.

work        what is divided into tasks, and what an executor is
choice      an executor by its name, and what is wrong with its options
options     of the commands that can choose one
local       one task after the other, in this process
on_ray      tasks on the machines of a Ray cluster, once more where a worker or a machine was lost
ray_worker  the other side of it: a task in a worker process, and what it tells
"""
