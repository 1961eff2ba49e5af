// Stories of an operator written with client-go, speaking protobuf as every controller of Kubernetes does.
//
//	operator STORY NAMESPACE KUBECONFIG
//
// Each story runs in a namespace of its own and ends with an error when something is not as it should be.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// stage is what a story has at hand.
type stage struct {
	ctx       context.Context
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

var stories = map[string]func(*stage) error{
	"reconciling": reconciling,
	"electing":    electing,
	"patching":    patching,
	"statuses":    statuses,
	"paging":      paging,
	"kinds":       kinds,
	"refusals":    refusals,
}

func main() {
	if err := tell(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tell(arguments []string) error {
	if len(arguments) != 3 {
		return fmt.Errorf("usage: operator STORY NAMESPACE KUBECONFIG")
	}
	story, known := stories[arguments[0]]
	if !known {
		return fmt.Errorf("no story %q", arguments[0])
	}
	config, err := clientcmd.BuildConfigFromFlags("", arguments[2])
	if err != nil {
		return err
	}
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return story(&stage{ctx: ctx, config: config, client: client, namespace: arguments[1]})
}

// eventually asks until the answer is yes.
func eventually(s *stage, what string, question func() (bool, error)) error {
	for {
		yes, err := question()
		if yes || err != nil {
			return err
		}
		select {
		case <-s.ctx.Done():
			return fmt.Errorf("not seen in time: %s", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
