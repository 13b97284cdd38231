#!/usr/bin/env bash
# A JobSet on GKE: one pod for each TPU host, all restarted together when one fails or is
# preempted. GKE tells each pod which host it is (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES).
set -euo pipefail

kubectl apply -f - <<'EOF'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: @NAME@
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: @ATTEMPTS@
    rules: # an input at fault would fail again
      - name: input
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true # the hosts look for each other while they start
  replicatedJobs:
    - name: slice
      replicas: @SLICES@
      template:
        spec:
          parallelism: @HOSTS@
          completions: @HOSTS@
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: seedjax
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              serviceAccountName: @SERVICE_ACCOUNT@
              # Time to save after a notice of preemption.
              terminationGracePeriodSeconds: 300
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: @GKE_ACCELERATOR@
                cloud.google.com/gke-tpu-topology: @SHAPE@
                @GKE_SPOT@
              containers:
                - name: seedjax
                  image: @IMAGE@
                  command: @COMMAND_JSON@
                  ports:
                    - containerPort: 8471 # between the chips of the hosts
                      protocol: TCP
                    - containerPort: 8476 # the coordinator of JAX's processes
                      protocol: TCP
                  resources:
                    requests:
                      google.com/tpu: @CHIPS_PER_HOST@
                    limits:
                      google.com/tpu: @CHIPS_PER_HOST@
EOF
