"""What runs left in their folders, compared: one page that needs nothing else, a Markdown table, a csv table.

find -> run -> groups -> table, curves, pareto, samples, differences -> page. Imports no torch, and reads only: whatever
lies in a folder may be torn, damaged or hostile, is named under "not read" then, and never stops a report.
"""
