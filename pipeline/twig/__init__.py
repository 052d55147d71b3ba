"""The method of Thinking-while-Generating (arXiv 2511.16671), free of tensors and files.

Read `programs` first. A program is a generator: it yields what it wants asked (`requests`), reads
what came back (`reflections`, `schedules`), and returns the picture's tokens. `drive` runs many of
them against any backend; it alone knows time, by the clock that its caller hands it. The wording of
the questions is data (`templates`).
"""
