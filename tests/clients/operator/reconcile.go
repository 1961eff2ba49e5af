package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

const label = "operator.example.com/site"

// site is a controller: every config map with the label wants a deployment of as many replicas as it says.
type site struct {
	*stage
	queue    workqueue.RateLimitingInterface
	factory  informers.SharedInformerFactory
	recorder record.EventRecorder
}

func newSite(s *stage) *site {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typed.EventSinkImpl{Interface: s.client.CoreV1().Events(s.namespace)})
	c := &site{
		stage:    s,
		queue:    workqueue.NewRateLimitingQueue(workqueue.DefaultControllerRateLimiter()),
		factory:  informers.NewSharedInformerFactoryWithOptions(s.client, time.Minute, informers.WithNamespace(s.namespace)),
		recorder: broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "site-operator"}),
	}
	enqueue := func(object interface{}) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			c.queue.Add(key)
		}
	}
	c.factory.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object interface{}) { enqueue(object) },
		DeleteFunc: enqueue,
	})
	// A deployment's owner has its name.
	c.factory.Apps().V1().Deployments().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, object interface{}) { enqueue(object) },
		DeleteFunc: enqueue,
	})
	return c
}

func (c *site) run(ctx context.Context) {
	c.factory.Start(ctx.Done())
	c.factory.WaitForCacheSync(ctx.Done())
	go func() {
		<-ctx.Done()
		c.queue.ShutDown()
	}()
	for {
		item, down := c.queue.Get()
		if down {
			return
		}
		if err := c.reconcile(ctx, item.(string)); err != nil {
			c.queue.AddRateLimited(item)
		} else {
			c.queue.Forget(item)
		}
		c.queue.Done(item)
	}
}

func (c *site) reconcile(ctx context.Context, key string) error {
	_, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil
	}
	wish, err := c.factory.Core().V1().ConfigMaps().Lister().ConfigMaps(c.namespace).Get(name)
	if errors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	if _, ours := wish.Labels[label]; !ours {
		return nil
	}
	replicas, err := strconv.ParseInt(wish.Data["replicas"], 10, 32)
	if err != nil {
		c.recorder.Eventf(wish, core.EventTypeWarning, "Unreadable", "replicas: %v", err)
		return nil
	}
	count := int32(replicas)
	there, err := c.factory.Apps().V1().Deployments().Lister().Deployments(c.namespace).Get(name)
	if errors.IsNotFound(err) {
		_, err = c.client.AppsV1().Deployments(c.namespace).Create(ctx, deployment(wish, count), meta.CreateOptions{})
		if err == nil {
			c.recorder.Eventf(wish, core.EventTypeNormal, "Created", "made deployment %s", name)
		}
		return err
	} else if err != nil || *there.Spec.Replicas == count {
		return err
	}
	changed := there.DeepCopy()
	changed.Spec.Replicas = &count
	_, err = c.client.AppsV1().Deployments(c.namespace).Update(ctx, changed, meta.UpdateOptions{})
	return err
}

func deployment(owner *core.ConfigMap, replicas int32) *apps.Deployment {
	labels := map[string]string{label: owner.Name}
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	return &apps.Deployment{
		ObjectMeta: meta.ObjectMeta{
			Name:            owner.Name,
			Labels:          labels,
			OwnerReferences: []meta.OwnerReference{*meta.NewControllerRef(owner, gvk)},
		},
		Spec: apps.DeploymentSpec{
			Replicas: &replicas,
			Selector: &meta.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{
				ObjectMeta: meta.ObjectMeta{Labels: labels},
				// Nobody schedules these: what matters is what the API says of them.
				Spec: core.PodSpec{
					SchedulerName: "nobody",
					Containers:    []core.Container{{Name: "web", Image: "example.com/web"}},
				},
			},
		},
	}
}

// A controller with informers and a work queue brings about what config maps wish, and puts right what others change.
func reconciling(s *stage) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go newSite(s).run(ctx)

	maps := s.client.CoreV1().ConfigMaps(s.namespace)
	deployments := s.client.AppsV1().Deployments(s.namespace)
	wish := &core.ConfigMap{
		ObjectMeta: meta.ObjectMeta{Name: "blog", Labels: map[string]string{label: "yes"}},
		Data:       map[string]string{"replicas": "2"},
	}
	if _, err := maps.Create(ctx, wish, meta.CreateOptions{}); err != nil {
		return err
	}
	has := func(wanted int32) func() (bool, error) {
		return func() (bool, error) {
			there, err := deployments.Get(ctx, "blog", meta.GetOptions{})
			if errors.IsNotFound(err) {
				return false, nil
			}
			return err == nil && *there.Spec.Replicas == wanted && there.Status.Replicas == wanted, err
		}
	}
	if err := eventually(s, "a deployment with pods", has(2)); err != nil {
		return err
	}
	scale, err := deployments.GetScale(ctx, "blog", meta.GetOptions{})
	if err != nil {
		return err
	}
	scale.Spec.Replicas = 5
	if _, err := deployments.UpdateScale(ctx, "blog", scale, meta.UpdateOptions{}); err != nil {
		return err
	}
	if err := eventually(s, "two replicas again", has(2)); err != nil {
		return err
	}
	pods, err := s.client.CoreV1().Pods(s.namespace).List(ctx, meta.ListOptions{LabelSelector: label + "=blog"})
	if err != nil {
		return err
	}
	if len(pods.Items) < 2 || pods.Items[0].Spec.Containers[0].Image != "example.com/web" {
		return fmt.Errorf("unexpected pods: %v", pods.Items)
	}
	events := func() (bool, error) {
		list, err := s.client.CoreV1().Events(s.namespace).List(ctx, meta.ListOptions{
			FieldSelector: "involvedObject.kind=ConfigMap,involvedObject.name=blog,reason=Created",
		})
		return err == nil && len(list.Items) == 1 && list.Items[0].Source.Component == "site-operator", err
	}
	if err := eventually(s, "an event about the config map", events); err != nil {
		return err
	}
	if err := maps.Delete(ctx, "blog", meta.DeleteOptions{}); err != nil {
		return err
	}
	return eventually(s, "the deployment gone with its owner", func() (bool, error) {
		_, err := deployments.Get(ctx, "blog", meta.GetOptions{})
		return errors.IsNotFound(err), nil
	})
}

// Of two that want to lead, one does; when it steps down the other takes over.
func electing(s *stage) error {
	lead := func(ctx context.Context, identity string, leading chan<- string) {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  meta.ObjectMeta{Namespace: s.namespace, Name: "leader"},
				Client:     s.client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
			},
			LeaseDuration:   6 * time.Second,
			RenewDeadline:   4 * time.Second,
			RetryPeriod:     200 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading <- identity },
				OnStoppedLeading: func() {},
			},
		})
	}
	leading := make(chan string, 2)
	first, stepDown := context.WithCancel(s.ctx)
	defer stepDown()
	go lead(first, "first", leading)
	if leader := <-leading; leader != "first" {
		return fmt.Errorf("%s leads", leader)
	}
	second, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go lead(second, "second", leading)
	lease, err := s.client.CoordinationV1().Leases(s.namespace).Get(s.ctx, "leader", meta.GetOptions{})
	if err != nil {
		return err
	}
	if *lease.Spec.HolderIdentity != "first" {
		return fmt.Errorf("the lease is held by %s", *lease.Spec.HolderIdentity)
	}
	stepDown()
	select {
	case leader := <-leading:
		if leader != "second" {
			return fmt.Errorf("%s leads", leader)
		}
	case <-s.ctx.Done():
		return fmt.Errorf("nobody took over")
	}
	return nil
}
