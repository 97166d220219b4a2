package main

// What no proto says: errors, the WebSocket and the plain paths.

func errorResponse() object {
	return object{
		"description": "400 wrong request, 401 who are you, 403 not allowed, 404 no such thing, 409 conflict, " +
			"413 too large, 415 not JSON, 429 too many, 503 away: try again after Retry-After seconds.",
		"content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}},
	}
}

func fixedSchemas() object {
	text := func(description string) object { return object{"type": "string", "description": description} }
	return object{
		"Error": object{
			"type":     "object",
			"required": []any{"error"},
			"properties": object{"error": object{
				"type":     "object",
				"required": []any{"code", "status", "message", "reason", "details", "request_id"},
				"properties": object{
					"code":       object{"type": "integer", "description": "The HTTP code."},
					"status":     text("The gRPC code's name, as in INVALID_ARGUMENT."),
					"message":    text("For people."),
					"reason":     text("For programs, in snake case."),
					"request_id": text("Names the request in the server's log."),
					"details": object{"type": "array", "description": "What is wrong in which place.", "items": object{
						"type":     "object",
						"required": []any{"field", "reason", "description"},
						"properties": object{
							"field":       text("A field, an input's name, or line:column of a pipeline."),
							"reason":      text("A diagnostic's code or a word in snake case."),
							"description": text("For people."),
						},
					}},
					"diagnostics": object{"type": "array", "description": "Of a pipeline that was refused.", "items": object{"$ref": "#/components/schemas/Diagnostic"}},
					"truncated":   object{"type": "integer", "description": "Diagnostics beyond the first 50."},
					"retry_after": object{"type": "number", "description": "Seconds after which to try again."},
				},
			}},
		},
		"Health": object{
			"type":     "object",
			"required": []any{"status"},
			"properties": object{
				"status": object{"type": "string", "enum": []any{"ok", "unavailable"}},
				"reason": text("What is wrong."),
			},
		},
	}
}

func fixedPaths() object {
	health := object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Health"}}}
	archive := object{"application/zstd": object{"schema": object{"type": "string", "format": "binary"}}}
	return object{
		"/v1/runs/{id}/ws": object{"get": object{
			"operationId": "WatchRunSocket",
			"tags":        []any{"Runs"},
			"summary":     "WatchRun as a WebSocket.",
			"description": "One Event per message. Close codes: 1000 the run has finished, 1001 the server goes away (come again with after), 1011 an error, which the last message tells.",
			"parameters": []any{
				object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string"}},
				object{"name": "after", "in": "query", "schema": object{"type": "integer", "format": "int32"}},
			},
			"responses": object{
				"101":     object{"description": "The events follow."},
				"default": object{"$ref": "#/components/responses/Error"},
			},
		}},
		"/v1/runs/{id}:export": object{"get": object{
			"operationId": "ExportRun", "tags": []any{"Runs"}, "summary": "A finished run as one file.",
			"description": "A tar, compressed with zstd, with the run, its log, its definition and files, what its steps printed and published and what people were asked.",
			"parameters":  []any{object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string"}}},
			"responses": object{
				"200":     object{"description": "The file.", "content": archive},
				"default": object{"$ref": "#/components/responses/Error"},
			},
		}},
		"/v1/runs:import": object{"post": object{
			"operationId": "ImportRun", "tags": []any{"Runs"}, "summary": "Takes the file of another server's run.",
			"description": "The run keeps its id and has the label imported. It can be read, compared and forked; it never runs. A file that is not whole stores nothing.",
			"requestBody": object{"required": true, "content": archive},
			"responses": object{
				"200":     object{"description": "The run.", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Run"}}}},
				"default": object{"$ref": "#/components/responses/Error"},
			},
		}},
		"/healthz": object{"get": object{
			"operationId": "Health", "tags": []any{"Server"}, "summary": "Whether the process is alive.",
			"responses": object{"200": object{"description": "It is.", "content": health}},
		}},
		"/readyz": object{"get": object{
			"operationId": "Ready", "tags": []any{"Server"}, "summary": "Whether requests can be served.",
			"responses": object{
				"200": object{"description": "They can.", "content": health},
				"503": object{"description": "They cannot; reason says why.", "content": health},
			},
		}},
		"/metrics": object{"get": object{
			"operationId": "Metrics", "tags": []any{"Server"}, "summary": "Metrics in the Prometheus text format.",
			"responses": object{"200": object{"description": "The metrics.", "content": object{"text/plain": object{"schema": object{"type": "string"}}}}},
		}},
	}
}
