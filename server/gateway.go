package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"go.opentelemetry.io/otel/propagation"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// streamHeader is set by streams once their request was found good, so that
// the gateway can send its own headers before the first message.
const streamHeader = "orchestrator-stream"

// gateway is the REST mirror: a client of the service over the in-memory
// connection.
func (s *Server) gateway() http.Handler {
	strictQuery()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, restJSON{}),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }), // Authorization passes anyway
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(ctx context.Context, r *http.Request) metadata.MD {
			md := metadata.Pairs(requestIDKey, r.Header.Get("X-Request-Id"))
			w3c.Inject(within(ctx, propagation.HeaderCarrier(r.Header)), outgoing(md))
			return md
		}),
		runtime.WithErrorHandler(restError),
		runtime.WithRoutingErrorHandler(restRoutingError),
		runtime.WithForwardResponseOption(openStream),
		runtime.WithDisableChunkedEncoding(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
	)
	ctx := context.Background() // the handlers use each request's own
	for _, register := range []error{
		orchestratorv1.RegisterRunsHandlerClient(ctx, mux, orchestratorv1.NewRunsClient(s.client)),
		orchestratorv1.RegisterPipelinesHandlerClient(ctx, mux, orchestratorv1.NewPipelinesClient(s.client)),
		orchestratorv1.RegisterApprovalsHandlerClient(ctx, mux, orchestratorv1.NewApprovalsClient(s.client)),
		orchestratorv1.RegisterArtifactsHandlerClient(ctx, mux, orchestratorv1.NewArtifactsClient(s.client)),
		orchestratorv1.RegisterSchedulesHandlerClient(ctx, mux, orchestratorv1.NewSchedulesClient(s.client)),
		orchestratorv1.RegisterWorkersHandlerClient(ctx, mux, orchestratorv1.NewWorkersClient(s.client)),
		orchestratorv1.RegisterBudgetsHandlerClient(ctx, mux, orchestratorv1.NewBudgetsClient(s.client)),
		orchestratorv1.RegisterModelsHandlerClient(ctx, mux, orchestratorv1.NewModelsClient(s.client)),
		orchestratorv1.RegisterCallsHandlerClient(ctx, mux, orchestratorv1.NewCallsClient(s.client)),
		orchestratorv1.RegisterToolsHandlerClient(ctx, mux, orchestratorv1.NewToolsClient(s.client)),
		orchestratorv1.RegisterSkillsHandlerClient(ctx, mux, orchestratorv1.NewSkillsClient(s.client)),
		orchestratorv1.RegisterQueuesHandlerClient(ctx, mux, orchestratorv1.NewQueuesClient(s.client)),
		orchestratorv1.RegisterStorageHandlerClient(ctx, mux, orchestratorv1.NewStorageClient(s.client)),
	} {
		if register != nil {
			panic("server: register the gateway: " + register.Error())
		}
	}
	return mux
}

// openStream sends the headers of a stream that has begun. The gateway calls
// it without a message before the first one.
func openStream(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	if m != nil {
		return nil
	}
	md, ok := runtime.ServerMetadataFromContext(ctx)
	if !ok || len(md.HeaderMD.Get(streamHeader)) == 0 {
		return nil // an error follows
	}
	w.Header().Set("Content-Type", contentLines)
	w.Header().Set("X-Accel-Buffering", "no") // for nginx
	if err := http.NewResponseController(w).Flush(); err != nil {
		return fmt.Errorf("send headers: %w", err)
	}
	return nil
}

// restError answers an error, of the service or of the gateway itself.
func restError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if custom, ok := errors.AsType[*runtime.HTTPStatusError](err); ok {
		err = custom.Err
	}
	var we *wire.Error
	if b, ok := r.Body.(*body); ok && errors.As(b.err, &we) {
		st, _ := toStatus(&refusal{reason: "invalid_json", violations: []violation{{Field: we.Field, Reason: "invalid_json", Text: we.Text}}}, "")
		writeError(w, st, 0)
		return
	}
	st := status.Convert(err)
	if st.Code() == codes.Unknown { // the gateway's own, as a broken escape in the path
		st = status.New(codes.InvalidArgument, "the request is malformed")
	}
	writeError(w, st, 0)
}

func restRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		reject(w, code, codes.Unimplemented, "method_not_allowed", "%s is not for this path", r.Method)
	case http.StatusBadRequest:
		reject(w, code, codes.InvalidArgument, "invalid_path", "the path is malformed")
	default:
		noSuchPath(w, r)
	}
}

const (
	contentJSON  = "application/json"
	contentLines = "application/x-ndjson"
)

// restJSON is package wire for the gateway. Streams come wrapped as
// {"result": message}; the wrapping is taken off.
type restJSON struct{}

var (
	_ runtime.Marshaler         = restJSON{}
	_ runtime.Delimited         = restJSON{}
	_ runtime.StreamContentType = restJSON{}
)

func (restJSON) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case map[string]any:
		if m, ok := v["result"].(proto.Message); ok {
			return wire.Marshal(m)
		}
	case map[string]proto.Message:
		if e, ok := v["error"].(*spb.Status); ok {
			return errorText(status.FromProto(e), 0, ""), nil
		}
	case proto.Message:
		b, err := wire.Marshal(v)
		return append(b, '\n'), err
	}
	return nil, fmt.Errorf("no JSON form for %T", v)
}

func (restJSON) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("no JSON form for %T", v)
	}
	return wire.Unmarshal(data, m)
}

func (j restJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return io.EOF // an empty message
		}
		err = j.Unmarshal(data, v)
		if b, ok := r.(*body); ok {
			b.err = err
		}
		return err
	})
}

func (j restJSON) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := j.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
}

func (restJSON) ContentType(any) string       { return contentJSON }
func (restJSON) StreamContentType(any) string { return contentLines }
func (restJSON) Delimiter() []byte            { return []byte("\n") }

// strictQuery makes the gateway refuse unknown query parameters. The gateway
// keeps its parser in a variable of its own.
var strictQuery = sync.OnceFunc(func() { runtime.SetQueryParameterParser(queryParser{})(nil) })

type queryParser struct{ runtime.DefaultQueryParser }

func (p queryParser) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	var known []string
	names := map[string]bool{}
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if !filter.HasCommonPrefix([]string{name}) {
			known = append(known, name)
			names[name] = true
		}
	}
	for key := range values {
		if !names[key] {
			if len(known) == 0 {
				return fmt.Errorf("unknown query parameter %s; there are none", short(key))
			}
			return fmt.Errorf("unknown query parameter %s; there are: %s", short(key), strings.Join(known, ", "))
		}
	}
	if err := p.DefaultQueryParser.Parse(m, values, filter); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return nil
}
