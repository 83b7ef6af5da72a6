"""What people and clients see: the command line, the library and the wire, asked in a fixed order.

``python -m tests.record`` prints the record. What differs by machine, moment or library is masked, so that
two records are the same bytes unless the product answers otherwise; ``record.txt`` is the one agreed on.
"""
