"""The demo behind `infertap demo`: a real model server, real clients, and the sidecar between them."""
