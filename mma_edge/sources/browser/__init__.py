"""A visitor's browser as camera and microphone: over WebRTC, or a WebSocket where UDP is blocked."""
