"""Trained models behind HTTP; needs the extra `serve`.

A request's way: `guard.py` (token, headers, counts) → `app.py` (routes) → `service.py` (place in
the house, time) → `uploads.py` (body to image) → `batching.py` (the model's thread) → `answers.py`.
"""
