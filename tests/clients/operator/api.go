package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1beta1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
)

func idlePod(name string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: core.PodSpec{
			SchedulerName: "nobody",
			Containers: []core.Container{{
				Name:  "idle",
				Image: "example.com/idle",
				Resources: core.ResourceRequirements{Requests: core.ResourceList{
					core.ResourceCPU:    resource.MustParse("250m"),
					core.ResourceMemory: resource.MustParse("1.5Gi"),
				}},
			}},
		},
	}
}

// Patches of every type are sent as JSON or YAML; what comes back is protobuf.
func patching(s *stage) error {
	maps := s.client.CoreV1().ConfigMaps(s.namespace)
	first := &core.ConfigMap{
		ObjectMeta: meta.ObjectMeta{Name: "patched"},
		Data:       map[string]string{"a": "1"},
		BinaryData: map[string][]byte{"b": {0, 255, 10}},
	}
	if _, err := maps.Create(s.ctx, first, meta.CreateOptions{}); err != nil {
		return err
	}
	yes := true
	patches := []struct {
		kind types.PatchType
		body string
		how  meta.PatchOptions
	}{
		{types.JSONPatchType, `[{"op":"add","path":"/data/json","value":"2"}]`, meta.PatchOptions{}},
		{types.MergePatchType, `{"data":{"a":null,"merge":"3"}}`, meta.PatchOptions{}},
		{types.StrategicMergePatchType, `{"data":{"strategic":"4"}}`, meta.PatchOptions{}},
		{types.ApplyPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: patched}\ndata: {applied: '5'}\n",
			meta.PatchOptions{FieldManager: "operator", Force: &yes}},
	}
	for _, patch := range patches {
		if _, err := maps.Patch(s.ctx, "patched", patch.kind, []byte(patch.body), patch.how); err != nil {
			return fmt.Errorf("%s: %w", patch.kind, err)
		}
	}
	there, err := maps.Get(s.ctx, "patched", meta.GetOptions{})
	if err != nil {
		return err
	}
	expected := "map[applied:5 json:2 merge:3 strategic:4]"
	if told := fmt.Sprint(there.Data); told != expected || string(there.BinaryData["b"]) != "\x00\xff\n" {
		return fmt.Errorf("%s and %v", told, there.BinaryData)
	}
	managers := []string{}
	for _, entry := range there.ManagedFields {
		managers = append(managers, string(entry.Operation)+" "+entry.Manager)
	}
	if told := strings.Join(managers, ","); !strings.Contains(told, "Apply operator") {
		return fmt.Errorf("managed by %s", told)
	}
	return nil
}

// Status is written through its subresource, in protobuf; a stale writer reads again and retries.
func statuses(s *stage) error {
	pods := s.client.CoreV1().Pods(s.namespace)
	made, err := pods.Create(s.ctx, idlePod("idle"), meta.CreateOptions{})
	if err != nil {
		return err
	}
	requests := made.Spec.Containers[0].Resources.Requests
	if requests.Cpu().MilliValue() != 250 || requests.Memory().Value() != 3<<29 || made.Status.QOSClass != core.PodQOSBurstable {
		return fmt.Errorf("unexpected requests %v, class %s", requests, made.Status.QOSClass)
	}
	stale := made.DeepCopy()
	made.Labels = map[string]string{"touched": "yes"}
	if _, err := pods.Update(s.ctx, made, meta.UpdateOptions{}); err != nil {
		return err
	}
	gate := core.PodCondition{Type: "example.com/checked", Status: core.ConditionTrue, Reason: "Looked"}
	stale.Status.Conditions = append(stale.Status.Conditions, gate)
	if _, err := pods.UpdateStatus(s.ctx, stale, meta.UpdateOptions{}); !errors.IsConflict(err) {
		return fmt.Errorf("a stale status was answered with %v", err)
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		fresh, err := pods.Get(s.ctx, "idle", meta.GetOptions{})
		if err != nil {
			return err
		}
		fresh.Status.Conditions = append(fresh.Status.Conditions, gate)
		fresh.Spec.Containers[0].Image = "example.com/other"
		_, err = pods.UpdateStatus(s.ctx, fresh, meta.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	there, err := pods.Get(s.ctx, "idle", meta.GetOptions{})
	if err != nil {
		return err
	}
	found := false
	for _, condition := range there.Status.Conditions {
		found = found || condition.Type == gate.Type && condition.Reason == gate.Reason
	}
	if image := there.Spec.Containers[0].Image; !found || image != "example.com/idle" {
		return fmt.Errorf("conditions %v, image %s", there.Status.Conditions, image)
	}
	// Bodies of subresources and options are protobuf, too.
	node := core.ObjectReference{Kind: "Node", Name: "nowhere"}
	binding := &core.Binding{ObjectMeta: meta.ObjectMeta{Name: "idle"}, Target: node}
	if err := pods.Bind(s.ctx, binding, meta.CreateOptions{}); err != nil {
		return fmt.Errorf("binding: %w", err)
	}
	if err := pods.Evict(s.ctx, &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: "idle"}}); err != nil && !errors.IsNotFound(err) {
		return fmt.Errorf("evicting: %w", err)
	}
	zero, background := int64(0), meta.DeletePropagationBackground
	gone := pods.Delete(s.ctx, "idle", meta.DeleteOptions{
		GracePeriodSeconds: &zero,
		PropagationPolicy:  &background,
		Preconditions:      &meta.Preconditions{UID: &there.UID},
	})
	if gone != nil && !errors.IsNotFound(gone) {
		return gone
	}
	_, err = pods.Get(s.ctx, "idle", meta.GetOptions{})
	if !errors.IsNotFound(err) {
		return fmt.Errorf("the pod is still there: %v", err)
	}
	return nil
}

// Lists in pages, their metadata alone, and collections deleted at once.
func paging(s *stage) error {
	maps := s.client.CoreV1().ConfigMaps(s.namespace)
	labels := map[string]string{"page": "yes"}
	for i := 0; i < 35; i++ {
		one := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{GenerateName: "leaf-", Labels: labels}}
		if _, err := maps.Create(s.ctx, one, meta.CreateOptions{}); err != nil {
			return err
		}
	}
	asked := 0
	pages := pager.New(func(ctx context.Context, options meta.ListOptions) (runtime.Object, error) {
		asked++
		return maps.List(ctx, options)
	})
	pages.PageSize = 10
	seen := map[string]bool{}
	err := pages.EachListItem(s.ctx, meta.ListOptions{LabelSelector: "page=yes"}, func(object runtime.Object) error {
		seen[object.(*core.ConfigMap).Name] = true
		return nil
	})
	if err != nil || len(seen) != 35 || asked != 4 {
		return fmt.Errorf("%d leaves on %d pages: %v", len(seen), asked, err)
	}
	bare, err := metadata.NewForConfig(s.config)
	if err != nil {
		return err
	}
	gvr := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	partial, err := bare.Resource(gvr).Namespace(s.namespace).List(s.ctx, meta.ListOptions{LabelSelector: "page=yes"})
	if err != nil || len(partial.Items) != 35 || partial.Items[0].Kind != "PartialObjectMetadata" {
		return fmt.Errorf("metadata of the leaves: %v, %v", partial, err)
	}
	err = maps.DeleteCollection(s.ctx, meta.DeleteOptions{}, meta.ListOptions{LabelSelector: "page=yes"})
	if err != nil {
		return err
	}
	left, err := maps.List(s.ctx, meta.ListOptions{LabelSelector: "page=yes"})
	if err != nil || len(left.Items) != 0 {
		return fmt.Errorf("left after deleting: %v, %v", left, err)
	}
	return nil
}

// Every kind that client-go has a type for and the server lists is listed in protobuf and decoded.
func kinds(s *stage) error {
	if _, err := s.client.Discovery().OpenAPISchema(); err != nil {
		return fmt.Errorf("the OpenAPI document: %w", err)
	}
	_, lists, err := s.client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	told := 0
	for _, list := range lists {
		// For old manifests alone, which are no protobuf.
		if list.GroupVersion == "extensions/v1beta1" {
			continue
		}
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, one := range list.APIResources {
			listable := strings.Contains(fmt.Sprint(one.Verbs), "list") && !strings.Contains(one.Name, "/")
			if !listable || !scheme.Scheme.Recognizes(version.WithKind(one.Kind+"List")) {
				continue
			}
			if err := listed(s, version, one); err != nil {
				return fmt.Errorf("%s in %s: %w", one.Name, version, err)
			}
			told++
		}
	}
	if told < 40 {
		return fmt.Errorf("only %d kinds were listed", told)
	}
	return nil
}

func listed(s *stage, version schema.GroupVersion, one meta.APIResource) error {
	config := rest.CopyConfig(s.config)
	config.GroupVersion = &version
	config.APIPath = "/apis"
	if version.Group == "" {
		config.APIPath = "/api"
	}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	answer, err := client.Get().Resource(one.Name).DoRaw(s.ctx)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(answer, []byte("k8s\x00")) {
		return fmt.Errorf("not answered in protobuf")
	}
	_, _, err = scheme.Codecs.UniversalDeserializer().Decode(answer, nil, nil)
	return err
}

// What is refused is a Status in protobuf with its reason and causes; custom resources speak JSON.
func refusals(s *stage) error {
	pods := s.client.CoreV1().Pods(s.namespace)
	_, err := pods.Create(s.ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "Not A Name"}}, meta.CreateOptions{})
	if !errors.IsInvalid(err) {
		return fmt.Errorf("a bad name: %v", err)
	}
	causes := err.(*errors.StatusError).ErrStatus.Details.Causes
	fields := []string{}
	for _, cause := range causes {
		fields = append(fields, cause.Field)
	}
	if told := strings.Join(fields, " "); told != "metadata.name spec.containers" {
		return fmt.Errorf("causes: %s", told)
	}
	if _, err := pods.Get(s.ctx, "absent", meta.GetOptions{}); !errors.IsNotFound(err) {
		return fmt.Errorf("an absent pod: %v", err)
	}
	if _, err := pods.Watch(s.ctx, meta.ListOptions{ResourceVersion: "nonsense"}); !errors.IsInvalid(err) && !errors.IsBadRequest(err) {
		return fmt.Errorf("a watch from nonsense: %v", err)
	}
	client, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return err
	}
	gvr := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	object := &unstructured.Unstructured{Object: map[string]interface{}{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]interface{}{"name": "untyped"},
	}}
	made, err := client.Resource(gvr).Namespace(s.namespace).Create(s.ctx, object, meta.CreateOptions{})
	if err != nil || made.GetUID() == "" {
		return fmt.Errorf("an untyped object: %v, %v", made, err)
	}
	return nil
}
