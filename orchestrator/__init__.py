"""Parameter surveys on supercomputers: asynchronous parallel search over batch jobs.

Importing this package imports nothing else; take what you need from its modules
(``orchestrator.jobs.Session``, ``orchestrator.samplers.BOSampler``, ``orchestrator.trial``).
"""

__version__ = "0.1.0"
