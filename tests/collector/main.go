// The OpenTelemetry Collector's own receiver of OTLP over HTTP, which prints each export as a line of OTLP JSON:
// collector ADDRESS:PORT
package main

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	config.GRPC = nil
	config.HTTP.Endpoint = os.Args[1]
	printer, err := consumer.NewTraces(func(_ context.Context, traces ptrace.Traces) error {
		text, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
		fmt.Println(string(text))
		return err
	})
	check(err)
	settings := receiver.CreateSettings{TelemetrySettings: componenttest.NewNopTelemetrySettings()}
	traces, err := factory.CreateTracesReceiver(context.Background(), settings, config, printer)
	check(err)
	check(traces.Start(context.Background(), componenttest.NewNopHost()))
	fmt.Println("ready")
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
