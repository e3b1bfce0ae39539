"""An HTTP/1.1 server that makes a span of its own of each request and exports them by OTLP over gRPC.

In: its port; the name of the service that its spans are to have; OTEL_EXPORTER_OTLP_ENDPOINT in the environment.
GET /…/export exports what there is before it answers. Nothing is exported at any other time.
"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": sys.argv[2]}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=24 * 3600 * 1000))
tracer = provider.get_tracer("otlp_grpc")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with tracer.start_as_current_span(self.path):
            if self.path.endswith("/export"):
                provider.force_flush()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
