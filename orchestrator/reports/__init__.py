"""Curves, figures, comparison statistics, exports and the HTML report; everything reads StudyRecords only."""
