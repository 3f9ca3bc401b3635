"""The Responses API: answers that are kept, go on by themselves, and whose streams are resumed anywhere."""
