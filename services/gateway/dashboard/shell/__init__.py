"""What all pages are made with: templates, streams of fragments, actions, charts, the way in."""
