"""Shows what an exporter is told: answers every POST on 127.0.0.1:8088 with 204 and prints it."""
from http.server import BaseHTTPRequestHandler, HTTPServer


class Told(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print(self.headers.get("ce-id", ""), body.decode(errors="replace"), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", 8088), Told).serve_forever()
