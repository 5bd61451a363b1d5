"""Differential privacy for the patients that a participant trains on.

The unit is the patient, with all of its examinations. Two data sets are neighbours if they differ in whether one
patient counts; the number of patients is public (zero-out neighbours). A participant releases sums over patients, each
patient's share clipped to a norm, with Gaussian noise. `dp-accounting` adds up what all releases together reveal.
"""
