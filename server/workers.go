package server

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// workerProtocol is the version of the protocol that workers must speak.
const workerProtocol = 1

// Workers gives steps to processes on other machines.
type Workers interface {
	// Attend serves the stream of a worker until ctx or the stream ends. hear
	// waits for what the worker says next, say tells it something; neither is
	// called concurrently with itself. A worker that cannot be taken in gives a
	// *pipeline.Error, before welcome is called.
	Attend(ctx context.Context, w pipeline.Worker, welcome func(pipeline.WorkerWelcome) error, hear func() (pipeline.WorkerWord, error), say func(pipeline.WorkerOrder) error) error
	// Workers lists those that are connected, by name.
	Workers() []pipeline.Worker
	// InLine lists steps of a run that wait for a busy worker, at most that many.
	InLine(run pipeline.RunID, most int) []pipeline.WorkerWant
	// DrainWorker lets one take nothing new.
	DrainWorker(name string) error
	// AttemptRun is the run of the attempt that a token names; a token that is not
	// ours is Denied.
	AttemptRun(ctx context.Context, token string) (pipeline.RunID, error)
}

// workers serves orchestrator.v1.Workers.
type workers struct {
	orchestratorv1.UnimplementedWorkersServer
	*Server
}

var _ orchestratorv1.WorkersServer = workers{}

// crew is who gives steps to workers, if anybody does.
func (s workers) crew() (Workers, error) {
	if s.cfg.Workers == nil {
		return nil, fault(pipeline.Unavailable, "no_workers", "this process takes no workers in")
	}
	return s.cfg.Workers, nil
}

// Connect serves a worker until one of the two leaves.
func (s workers) Connect(stream grpc.BidiStreamingServer[orchestratorv1.ConnectRequest, orchestratorv1.ConnectResponse]) error {
	crew, err := s.crew()
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	switch {
	case hello == nil:
		return refuse("message", "hello_missing", "begin with a hello")
	case hello.GetProtocol() != workerProtocol:
		return refuse("hello.protocol", "protocol_mismatch",
			"the worker speaks version %d of the protocol, this server version %d; use a worker of the server's version", hello.GetProtocol(), workerProtocol)
	}
	w, err := toWorker(hello)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.hub.closing: // the worker goes on with another server
			cancel()
		case <-ctx.Done():
		}
	}()
	err = crew.Attend(ctx, w,
		func(welcome pipeline.WorkerWelcome) error {
			return stream.Send(&orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Welcome{Welcome: &orchestratorv1.WorkerWelcome{
				Protocol: workerProtocol, Version: s.cfg.Version, Heartbeat: welcome.Heartbeat.Seconds(), Peers: welcome.Peers,
			}}})
		},
		func() (pipeline.WorkerWord, error) {
			m, err := stream.Recv()
			if err != nil {
				return pipeline.WorkerWord{}, err
			}
			return toWord(m)
		},
		func(o pipeline.WorkerOrder) error { return stream.Send(fromOrder(&o)) })
	switch {
	case stream.Context().Err() == nil && ctx.Err() != nil:
		return errDraining
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// FetchFiles hands over the files of a bundle.
func (s workers) FetchFiles(ctx context.Context, req *orchestratorv1.FetchFilesRequest) (*orchestratorv1.FetchFilesResponse, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	if _, err := crew.AttemptRun(ctx, req.GetToken()); err != nil {
		return nil, err
	}
	files, err := s.cfg.Store.Bundle(ctx, pipeline.Digest(req.GetDigest()))
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.FetchFilesResponse{Files: files}, nil
}

// FetchBlob hands over the content of a file of the attempt's run.
func (s workers) FetchBlob(ctx context.Context, req *orchestratorv1.FetchBlobRequest) (*orchestratorv1.FetchBlobResponse, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	run, err := crew.AttemptRun(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	data, err := s.cfg.Store.Blob(ctx, run, pipeline.Digest(req.GetDigest()))
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.FetchBlobResponse{Content: data}, nil
}

// KeepBlob takes the content of a file for the attempt's run.
func (s workers) KeepBlob(ctx context.Context, req *orchestratorv1.KeepBlobRequest) (*orchestratorv1.KeepBlobResponse, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	run, err := crew.AttemptRun(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	digest, err := s.cfg.Store.PutBlob(ctx, run, req.GetContent())
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.KeepBlobResponse{Digest: string(digest)}, nil
}

// ListWorkers lists the workers that are connected.
func (s workers) ListWorkers(_ context.Context, req *orchestratorv1.ListWorkersRequest) (*orchestratorv1.ListWorkersResponse, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListWorkersResponse{}
	for _, w := range crew.Workers() {
		if !slices.ContainsFunc(req.GetLabels(), func(l string) bool { return !slices.Contains(w.Labels, l) }) {
			resp.Workers = append(resp.Workers, fromWorker(&w))
		}
	}
	return resp, nil
}

// GetWorker reads one worker.
func (s workers) GetWorker(_ context.Context, req *orchestratorv1.GetWorkerRequest) (*orchestratorv1.Worker, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	for _, w := range crew.Workers() {
		if w.Name == req.GetName() {
			return fromWorker(&w), nil
		}
	}
	return nil, fault(pipeline.NotFound, "worker_not_found", "no worker called %s is connected to this server", short(req.GetName()))
}

// DrainWorker lets a worker take nothing new.
func (s workers) DrainWorker(ctx context.Context, req *orchestratorv1.DrainWorkerRequest) (*orchestratorv1.Worker, error) {
	crew, err := s.crew()
	if err != nil {
		return nil, err
	}
	if err := crew.DrainWorker(req.GetName()); err != nil {
		return nil, err
	}
	return s.GetWorker(ctx, &orchestratorv1.GetWorkerRequest{Name: req.GetName()})
}
